"""What pytest must not import: it runs with the SDK, which is not installed here."""

collect_ignore = ["sdk.py"]
