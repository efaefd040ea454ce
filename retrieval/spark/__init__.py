"""Work on an Apache Spark cluster: a session, and tasks on its executors."""
