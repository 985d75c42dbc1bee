-- The turns of conversations by their places: a hit lends to the turns next to it. The expressions are those of
-- selection.py, by which SQLite knows that the index serves a query.

CREATE INDEX memories_turns ON memories (
    user_id,
    CASE WHEN extensions LIKE '%"x-openproto"%' AND json_type(extensions, '$."x-openproto".conversation') = 'text'
    THEN extensions ->> '$."x-openproto".conversation' END,
    CASE WHEN extensions LIKE '%"x-openproto"%' AND json_type(extensions, '$."x-openproto".turn') = 'integer'
    THEN extensions ->> '$."x-openproto".turn' END
) WHERE extensions LIKE '%"x-openproto"%';
