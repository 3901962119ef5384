"""What the integration tests stand on: brokers, stores, clients as processes, and a small Kafka client on raw sockets.

Nothing here waits without a limit, and every process started here is stopped with the test session.
"""
