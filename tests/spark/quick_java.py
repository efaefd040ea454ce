"""Settings of Spark by which its Java compiles quickly rather than well, as none that tests start runs for long."""

QUICK_DRIVER, QUICK_EXECUTOR = (
    f"spark.{what}.extraJavaOptions=-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" for what in ("driver", "executor")
)
