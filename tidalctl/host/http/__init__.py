"""A host's HTTP side: invocations as JSON, NDJSON and SSE, AWS Lambda's path, and what a platform asks for."""
