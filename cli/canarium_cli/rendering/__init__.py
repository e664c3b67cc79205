"""What the terminal shows of ModelDeployments: from objects to text and rich's renderables; no IO, no clock."""
