"""The pages: what the catalog says, shown while it happens. Nothing is changed from here; the one home of FastAPI."""
