"""The services of Millrace, their shared libraries (chassis, tasklog, limits, pools), the client and the command line."""
