"""The edge agent: one small process on a machine of the fleet. Standard library, and psutil for its metrics.

main -> daemon: poll -> executions -> plugins -> processes
                facts, sampler, replies -> spool (on disk) -> client -> server
Every module here is loaded on machines with little memory: nothing imports ssl, http.client, dataclasses or asyncio
unless it must.
"""
