"""The HTTP port: native routes, server-sent events, OpenAI's shape, the page."""
