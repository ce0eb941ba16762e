"""The way of a run on the client's side: request, orchestration, attachment."""
