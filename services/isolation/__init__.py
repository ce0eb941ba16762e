"""What a process of ours gives up before it takes foreign bytes, whichever service it belongs to.

File servers, egress workers and the materializer's workers stand on it. It knows no service, no
settings and no gRPC: what it imports, whoever breaks into such a process has.
"""
