-- What a service or a node has not answered yet: each node asks every few seconds.
CREATE INDEX erasure_service_waiting ON erasure_service (service, erasure) WHERE state = 'waiting';
