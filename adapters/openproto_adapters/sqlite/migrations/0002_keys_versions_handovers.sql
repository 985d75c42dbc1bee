-- The caller's own name for a record, the version that changes with it, and when it was handed over to others.

ALTER TABLE memories ADD COLUMN key TEXT;
ALTER TABLE memories ADD COLUMN version TEXT NOT NULL DEFAULT '';
-- Whether valid_from is the moment of a handover: a successor without one of its own holds from that moment on.
ALTER TABLE memories ADD COLUMN starts_by_handover INTEGER NOT NULL DEFAULT 0;
-- JSON, in the order in which they named it: the id of each successor and the moment of its handover.
ALTER TABLE memories ADD COLUMN handovers TEXT NOT NULL DEFAULT '[]';

CREATE UNIQUE INDEX memories_keys ON memories (user_id, key) WHERE key IS NOT NULL;
CREATE INDEX memories_successors ON memories (user_id) WHERE supersedes <> '[]';

UPDATE memories SET version = lower(hex(randomblob(8)));

UPDATE memories SET valid_from = created_at, starts_by_handover = 1 WHERE valid_from IS NULL AND supersedes <> '[]';

CREATE TEMPORARY TABLE handover AS
    SELECT old.value AS id, s.user_id, s.id AS successor, s.valid_from AS moment, s.created_at AS named_at
    FROM memories s, json_each(s.supersedes) old WHERE s.supersedes <> '[]';

CREATE INDEX temp.handover_of ON handover (id, user_id);

-- A successor that was deleted since: what it outdated stays so.
INSERT INTO handover
    SELECT id, user_id, superseded_by, superseded_at, superseded_at FROM memories m
    WHERE superseded_by IS NOT NULL AND superseded_by NOT IN (
        SELECT successor FROM handover h WHERE h.id = m.id AND h.user_id = m.user_id);

UPDATE memories SET
    handovers = (SELECT json_group_array(json_array(successor, moment)) FROM (
        SELECT successor, moment FROM handover h WHERE h.id = memories.id AND h.user_id = memories.user_id
        ORDER BY named_at, successor)),
    superseded_at = (
        SELECT min(moment) FROM handover h WHERE h.id = memories.id AND h.user_id = memories.user_id)
    WHERE superseded_by IS NOT NULL;

DROP TABLE temp.handover;
