"""The ports of the token log on Redis, on Kafka, on the cache service, and in memory."""
