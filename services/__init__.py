"""Servers that Freshet starts beside itself: a broker and Redis out of wheels, Kafka and DynamoDB Local as jars."""
