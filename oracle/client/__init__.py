"""The requester's side: submit a request, wait for its end, verify the answer, take refunds."""
