"""EndpointSlice: where the pods behind a Service are.

Upstream: `pkg/controller/endpointslice` and `k8s.io/endpointslice`. `endpoints` computes what should be, `layout` shares
it out over slices with the fewest writes, `controller` reads and writes.
"""

from sampan.controllers.endpointslice.controller import EndpointSliceController

__all__ = ["EndpointSliceController"]
