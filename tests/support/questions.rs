//! Questions that people ask of the design documents.

pub(crate) const QUERIES: [&str; 20] = [
    "pod scheduling and node affinity",
    "how are secrets encrypted at rest",
    "graceful node shutdown",
    "storage class parameters and volume expansion",
    "admission webhooks ordering",
    "service account token projection",
    "horizontal pod autoscaler metrics",
    "windows containers networking",
    "etcd backup and restore",
    "api deprecation policy",
    "feature gate graduation criteria",
    "network policy and egress",
    "custom resource validation",
    "audit logging of requests",
    "cronjob time zones",
    "leader election leases",
    "ephemeral containers debug",
    "topology aware routing hints",
    "memory manager numa",
    "risks and mitigations of the rollout",
];
