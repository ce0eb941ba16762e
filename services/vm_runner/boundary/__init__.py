"""What runs reach beyond their machines: decided here, carried by an egress worker of each run.

Decisions are pure (`services.core.egress`); this is the control plane around them: policies of live
runs, approvals, the audit log, names and addresses, the workers' questions.
"""
