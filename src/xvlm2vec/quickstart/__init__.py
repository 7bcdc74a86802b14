"""The whole story on a laptop, as stages that are called with their inputs."""
