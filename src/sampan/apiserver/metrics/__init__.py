"""What the server counts, under the names that people's dashboards know.

`requests` counts on the way of every request and does little more than that; `exposition` turns all counts into Prometheus'
text when somebody asks, and only then loads the library that does it.
"""
