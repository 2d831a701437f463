"""The OpenAI-compatible server: what a request may say, how much is taken on at once, and how it is answered.

refusals    errors with their status, as OpenAI words them
fields      fields that are not read: which do nothing, and which are refused and why
turns       messages to a conversation
bodies      JSON to a checked body
asked       a checked body to what a `Service` computes
answers     pieces to the objects of the protocol, whole or as events
reply       those objects to bytes: one of them, or server-sent events
limits      how much: places, turns, bytes, seconds
gate        places for requests in hand, turns to be computed
arrival     the body, and the news that a client left
flow        a ticket's blocking iteration, brought to the event loop
endpoint    one request from its first byte to its last
guard       who may ask: host, origin, key; one line of log a request
app         the routes
process     the socket, the signals, the run until it is asked to end
"""
