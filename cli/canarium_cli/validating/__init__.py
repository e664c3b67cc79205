"""What `canarium validate` reads and writes: thresholds in; text, JSON, Markdown, HTML and JUnit out.

The work itself is `canarium_runtime.golden`.
"""
