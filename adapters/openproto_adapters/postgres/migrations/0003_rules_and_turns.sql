-- Which rules the words were made by (openproto.stores.words.RULES): what was indexed by others is not found by these.
ALTER TABLE {schema}.store ADD COLUMN rules integer NOT NULL DEFAULT 2;
UPDATE {schema}.store SET rules = 1 WHERE EXISTS (SELECT FROM {schema}.memories);

-- The turns of a conversation, to find those beside one. A conversation's name may be longer than an index holds.
CREATE INDEX memories_turns ON {schema}.memories (
    user_id,
    md5(extensions #>> '{x-openproto,conversation}'),
    (CASE WHEN json_typeof(extensions #> '{x-openproto,turn}') = 'number'
            AND extensions #>> '{x-openproto,turn}' ~ '^[0-9]{1,9}$'
        THEN (extensions #>> '{x-openproto,turn}')::integer END)
) WHERE extensions #>> '{x-openproto,conversation}' IS NOT NULL;
