"""`canarium dashboard`: a web page that shows rollouts, and lets people act on them by their own rights."""
