"""Events of a Kafka topic as training data."""
