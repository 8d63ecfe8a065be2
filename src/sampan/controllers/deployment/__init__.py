"""Deployment: rolls pods over from one template to the next by scaling ReplicaSets.

Upstream: `pkg/controller/deployment`. `revisions` finds and makes the ReplicaSets, `scaling` says how large each is to
be, `rollout` does one step of either strategy, `status` tells how far it is.
"""

from sampan.controllers.deployment.controller import DeploymentController

__all__ = ["DeploymentController"]
