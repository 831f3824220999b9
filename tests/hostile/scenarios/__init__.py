"""The scenarios, one file each: `async def run(app: AppProcess, scale: float) -> Result`. The app is running."""
