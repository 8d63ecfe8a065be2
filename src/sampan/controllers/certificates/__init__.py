"""CertificateSigningRequests: approving those of nodes, signing what is approved, clearing away what is old."""

from sampan.controllers.certificates.approving import CSRApprovingController
from sampan.controllers.certificates.cleaner import CSRCleanerController
from sampan.controllers.certificates.serving import KubeletServingApprovingController
from sampan.controllers.certificates.signing import CSRSigningController

__all__ = [
    "CSRApprovingController",
    "CSRCleanerController",
    "CSRSigningController",
    "KubeletServingApprovingController",
]
