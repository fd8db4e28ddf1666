"""The Open Inference Protocol, as any server of it must speak it.

The suite asks the server at OPEN_INFERENCE_URL about its model OPEN_INFERENCE_MODEL, if those are set.
That may be any server, with a model of one input that is neither BYTES nor FP16 and takes batches.
Else it asks this service, about models of its own, and holds it to more: docs/open_inference.md says which status
each failure has, where the protocol leaves that open.
"""
