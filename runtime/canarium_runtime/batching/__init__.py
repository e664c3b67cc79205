"""From single requests to batches and back: `policy` decides, `merge` joins arrays, `batcher` runs."""
