-- The caller's own name for a record, its version, and to whom it was handed over, and when. None of it rewrites the
-- table.

ALTER TABLE {schema}.memories
    ADD COLUMN revision bigint NOT NULL DEFAULT 1,    -- the version, together with the id (records.py)
    ADD COLUMN key text COLLATE "C",
    ADD COLUMN key_hash bytea,                        -- a key may be longer than an entry of an index
    -- Whether valid_from is the moment of a handover: a successor without one of its own holds from that moment on.
    ADD COLUMN starts_by_handover boolean NOT NULL DEFAULT false,
    -- Its successors in the order in which they named it, and the moment of each one's handover.
    ADD COLUMN successors uuid[],
    ADD COLUMN handovers timestamptz[];

DO $names$ BEGIN
    EXECUTE (SELECT string_agg(format('ALTER TABLE {schema}.memories DROP CONSTRAINT %I', conname), ';')
        FROM pg_constraint WHERE conrelid = '{schema}.memories'::regclass AND contype = 'c');
END $names$;
ALTER TABLE {schema}.memories
    ADD CONSTRAINT memories_validity CHECK (starts_by_handover OR valid_to > valid_from) NOT VALID;

CREATE UNIQUE INDEX memories_by_key ON {schema}.memories (user_id, key_hash) WHERE key_hash IS NOT NULL;
CREATE INDEX memories_successors ON {schema}.memories (user_id) WHERE supersedes <> '{}';

UPDATE {schema}.memories SET valid_from = created_at, starts_by_handover = true
    WHERE valid_from IS NULL AND supersedes <> '{}';

WITH named AS (
    SELECT old AS id, s.user_id, s.id AS successor, s.valid_from AS moment, s.created_at AS named_at
    FROM {schema}.memories s CROSS JOIN unnest(s.supersedes) AS old WHERE s.supersedes <> '{}'
), handover AS (
    SELECT * FROM named
    -- A successor that was deleted since: what it outdated stays so.
    UNION ALL SELECT m.id, m.user_id, m.superseded_by, m.superseded_at, m.superseded_at FROM {schema}.memories m
    WHERE m.superseded_by IS NOT NULL AND NOT EXISTS (
        SELECT FROM named n WHERE n.id = m.id AND n.user_id = m.user_id AND n.successor = m.superseded_by)
), handed AS (
    SELECT id, user_id, array_agg(successor ORDER BY named_at, successor) AS successors,
        array_agg(moment ORDER BY named_at, successor) AS moments, min(moment) AS first
    FROM handover GROUP BY id, user_id
)
UPDATE {schema}.memories m SET successors = handed.successors, handovers = handed.moments, superseded_at = handed.first
    FROM handed WHERE m.id = handed.id AND m.user_id = handed.user_id AND m.superseded_by IS NOT NULL;
