"""What is made at the time of a read: functions, and the processes that they run in."""
