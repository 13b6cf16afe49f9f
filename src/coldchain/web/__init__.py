"""The pages: what the catalog says, shown while it happens. Reads only; the one home of FastAPI."""
