-- Of users with an index for their searches alone (large_index.py); the triggers that keep it are made with it.
CREATE TABLE {schema}.large_users (
    user_id text COLLATE "C" PRIMARY KEY,
    ready_at timestamptz,             -- NULL: the index is being made, and searches do without
    recall double precision           -- of the ten best, when it was made
);

-- Which of these users' memories have which word. What is changed or deleted later is posted as well, and the sum of
-- both is true at any moment.
CREATE TABLE {schema}.postings (
    user_id text COLLATE "C" NOT NULL,
    place integer NOT NULL,           -- of a word in `words`, as its text counts them; 0 counts every memory
    change smallint NOT NULL,         -- 1: these have the word; -1: these have it no more
    count integer NOT NULL,
    memories uuid[] NOT NULL          -- empty at 0
);
-- Read whole or not at all, and hardly to be compressed.
ALTER TABLE {schema}.postings ALTER memories SET STORAGE EXTERNAL;
CREATE INDEX postings_by_word ON {schema}.postings (user_id, place) INCLUDE (change, count);

CREATE FUNCTION {schema}.places(words sparsevec, more_words sparsevec) RETURNS integer[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $places$
    -- {5:1,9:1}/1000000000 is the text of a vector, {5,9} that of an array.
    SELECT replace(split_part(words::text, '/', 1), ':1', '')::integer[]
        || coalesce(replace(split_part(more_words::text, '/', 1), ':1', ''), '{}')::integer[]
$places$;

CREATE FUNCTION {schema}.post_words() RETURNS trigger LANGUAGE plpgsql AS $post$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO {schema}.postings (user_id, place, change, count, memories)
        SELECT OLD.user_id, place, -1, 1, CASE place WHEN 0 THEN '{}' ELSE ARRAY[OLD.id] END
        FROM unnest(0 || {schema}.places(OLD.words, OLD.more_words)) AS place;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO {schema}.postings (user_id, place, change, count, memories)
        SELECT NEW.user_id, place, 1, 1, CASE place WHEN 0 THEN '{}' ELSE ARRAY[NEW.id] END
        FROM unnest(0 || {schema}.places(NEW.words, NEW.more_words)) AS place;
    END IF;
    RETURN NULL;
END $post$;

CREATE POLICY acting_users ON {schema}.large_users USING (
    user_id = (SELECT ({schema}.acting_users())[1]) OR user_id = ANY ((SELECT {schema}.acting_users())::text[])
    OR (SELECT current_setting('openproto.users', true)) = '*');
CREATE POLICY acting_users ON {schema}.postings USING (
    user_id = (SELECT ({schema}.acting_users())[1]) OR user_id = ANY ((SELECT {schema}.acting_users())::text[])
    OR (SELECT current_setting('openproto.users', true)) = '*');

-- Who may use the memories may use these as well: nobody could have granted that beforehand.
DO $grants$
DECLARE may record;
BEGIN
    FOR may IN SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS who,
            string_agg(privilege_type, ', ') AS what
        FROM pg_class, aclexplode(relacl)
        WHERE oid = '{schema}.memories'::regclass AND grantee <> relowner
          AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
        GROUP BY grantee
    LOOP
        EXECUTE format('GRANT %s ON {schema}.large_users, {schema}.postings TO %s', may.what, may.who);
    END LOOP;
END $grants$;
