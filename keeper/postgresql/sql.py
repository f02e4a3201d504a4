"""All SQL of the store: the schema with its migrations, and the statements.

Rows are found by namespace, cache and digest, where the digest is that of the memoize key (`rows.digest_of`).
So the rows of a cache lie in an order that has nothing to do with their keys, and any stretch of it is a fair
sample.

Whose clock: `created` is what the entry itself says, and is compared with `created` of others alone.
`written`, `last_hit`, and what is due by them or by `expires`, go by the database's `now()`. Whether an entry
is too old for a step is not asked here: the keeper asks, by its own clock, as it does of a ConfigMap's.

Each statement is a transaction of its own, and may be run twice: the keeper may be killed between any two,
and PgBouncer may have each run elsewhere. Lists are arrays of text: asyncpg knows these without asking the
server.
"""

LOCK = 7_340_283_116_904_455_801
"""The advisory lock of whoever migrates; a number made up, and nobody else's."""
OVERHEAD = 512
"""Bytes that an entry counts beside its text: its names, and its places in indexes."""

CREATE = """
CREATE SCHEMA IF NOT EXISTS stepmemo;
CREATE TABLE IF NOT EXISTS stepmemo.schema (version integer NOT NULL);
"""
VERSION = "SELECT coalesce(max(version), 0) FROM stepmemo.schema"
CHECK = "SELECT FROM stepmemo.entries, stepmemo.usage LIMIT 0"
"""Fails where the tables are not there, whatever the version says."""
MIGRATED = "INSERT INTO stepmemo.schema (version) VALUES ($1)"

MIGRATIONS = (
    """
    CREATE SEQUENCE stepmemo.revisions;

    CREATE TABLE stepmemo.entries (
        namespace text COLLATE "C" NOT NULL,
        cache text COLLATE "C" NOT NULL,
        digest bytea NOT NULL,
        data_key text COLLATE "C" NOT NULL,
        -- The entry as it would stand in a ConfigMap, byte by byte: jsonb knows no NUL, and keeps neither the
        -- order nor the numbers. What is long lies out of line (TOAST): who does not ask does not read it.
        -- NULL: the entry is gone, and one that a ConfigMap has in this place counts only if it is newer.
        text text,
        bytes bigint NOT NULL,
        created timestamptz NOT NULL,
        expires timestamptz,
        written timestamptz NOT NULL DEFAULT now(),
        revision bigint NOT NULL DEFAULT nextval('stepmemo.revisions'),
        last_hit timestamptz,
        PRIMARY KEY (namespace, cache, digest)
    -- With room in each page, and no index on it, a new `last_hit` touches no index (a HOT update).
    ) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);

    CREATE INDEX entries_expires ON stepmemo.entries (expires) WHERE expires IS NOT NULL;
    CREATE INDEX entries_gone ON stepmemo.entries (written) WHERE text IS NULL;

    -- What each cache comes to. Kept by triggers, in the transaction that changes it, so that nobody has to
    -- count; in one order and after the entries, so that no two wait for each other.
    CREATE TABLE stepmemo.usage (
        namespace text COLLATE "C" NOT NULL,
        cache text COLLATE "C" NOT NULL,
        entries bigint NOT NULL,
        bytes bigint NOT NULL,
        PRIMARY KEY (namespace, cache)
    ) WITH (fillfactor = 50);

    CREATE FUNCTION stepmemo.count_inserted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO stepmemo.usage AS u
        SELECT namespace, cache, count(*), sum(bytes) FROM inserted WHERE text IS NOT NULL
        GROUP BY namespace, cache ORDER BY namespace, cache
        ON CONFLICT (namespace, cache)
        DO UPDATE SET entries = u.entries + excluded.entries, bytes = u.bytes + excluded.bytes;
        RETURN NULL;
    END $$;

    CREATE FUNCTION stepmemo.count_updated() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO stepmemo.usage AS u
        SELECT namespace, cache, sum(entries), sum(bytes) FROM (
            SELECT namespace, cache, 1 AS entries, bytes FROM after WHERE text IS NOT NULL
            UNION ALL
            SELECT namespace, cache, -1, -bytes FROM before WHERE text IS NOT NULL
        ) AS changes
        GROUP BY namespace, cache HAVING sum(entries) <> 0 OR sum(bytes) <> 0 ORDER BY namespace, cache
        ON CONFLICT (namespace, cache)
        DO UPDATE SET entries = u.entries + excluded.entries, bytes = u.bytes + excluded.bytes;
        RETURN NULL;
    END $$;

    CREATE FUNCTION stepmemo.count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO stepmemo.usage AS u
        SELECT namespace, cache, -count(*), -sum(bytes) FROM deleted WHERE text IS NOT NULL
        GROUP BY namespace, cache ORDER BY namespace, cache
        ON CONFLICT (namespace, cache)
        DO UPDATE SET entries = u.entries + excluded.entries, bytes = u.bytes + excluded.bytes;
        DELETE FROM stepmemo.usage AS u USING (SELECT DISTINCT namespace, cache FROM deleted) AS d
        WHERE u.namespace = d.namespace AND u.cache = d.cache AND u.entries = 0;
        RETURN NULL;
    END $$;

    CREATE TRIGGER count_inserted AFTER INSERT ON stepmemo.entries REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION stepmemo.count_inserted();
    CREATE TRIGGER count_updated AFTER UPDATE ON stepmemo.entries
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION stepmemo.count_updated();
    CREATE TRIGGER count_deleted AFTER DELETE ON stepmemo.entries REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION stepmemo.count_deleted();
    """,
)
"""What takes the schema from each version to the next, of which the first is 1.

A keeper of an earlier version stops using the database once another has migrated it, and lets steps run: so
one migration a release, and none that takes long.
"""

# --- For steps --------------------------------------------------------------------------------------------

AHEAD = "1 minute"
"""How far a clock may be ahead of the database's; an entry from later on was made by a wrong one."""

READ = f"""
SELECT text, created, revision, coalesce(expires <= now(), false) AS expired,
       now() + interval '{AHEAD}' AS soon
FROM stepmemo.entries
WHERE namespace = $1 AND cache = $2 AND digest = decode($3, 'hex')
"""

PUT = f"""
INSERT INTO stepmemo.entries AS e
    (namespace, cache, digest, data_key, text, bytes, created, expires, last_hit)
VALUES ($1, $2, decode($3, 'hex'), $4, $5, $6, $7, $8,
        CASE WHEN $9::timestamptz <= now() THEN $9::timestamptz END)
ON CONFLICT (namespace, cache, digest) DO UPDATE SET
    data_key = excluded.data_key, text = excluded.text, bytes = excluded.bytes, created = excluded.created,
    expires = excluded.expires, written = now(), revision = excluded.revision, last_hit = excluded.last_hit
-- The newer one stays, whoever comes last: a keeper that lost its Lease may be late. So what is gone does not
-- come back by being told twice. One from the future was made by a wrong clock, and keeps nobody out.
WHERE excluded.created > e.created OR (excluded.created = e.created AND e.text IS NOT NULL)
   OR e.created > now() + interval '{AHEAD}'
RETURNING revision
"""

HIT = """
WITH hit AS (
    SELECT e.namespace, e.cache, e.digest FROM stepmemo.entries AS e
    JOIN unnest($1::text[], $2::text[], $3::text[]) AS k (namespace, cache, digest)
    ON e.namespace = k.namespace AND e.cache = k.cache AND e.digest = decode(k.digest, 'hex')
    WHERE e.text IS NOT NULL AND (e.last_hit IS NULL OR e.last_hit < now() - make_interval(secs => $4))
    ORDER BY e.namespace, e.cache, e.digest
    FOR NO KEY UPDATE OF e SKIP LOCKED
)
UPDATE stepmemo.entries AS e SET last_hit = now() FROM hit
WHERE e.namespace = hit.namespace AND e.cache = hit.cache AND e.digest = hit.digest
RETURNING 1
"""

REVISIONS = """
SELECT e.namespace, e.cache, e.data_key, e.revision FROM stepmemo.entries AS e
JOIN unnest($1::text[], $2::text[], $3::text[]) AS k (namespace, cache, digest)
ON e.namespace = k.namespace AND e.cache = k.cache AND e.digest = decode(k.digest, 'hex')
"""

# --- For people -------------------------------------------------------------------------------------------

ENTRIES = """
SELECT encode(digest, 'hex') AS digest, data_key, bytes, created, last_hit, expires FROM stepmemo.entries
WHERE namespace = $1 AND cache = $2 AND digest > decode($3, 'hex') AND text IS NOT NULL
ORDER BY digest LIMIT $4
"""

CACHES = """
SELECT namespace, cache, entries, bytes FROM stepmemo.usage
WHERE ($1 = '' OR namespace = $1) AND (namespace, cache) > ($2, $3) AND entries > 0
ORDER BY namespace, cache LIMIT $4
"""

DELETE = """
DELETE FROM stepmemo.entries WHERE namespace = $1 AND cache = $2 AND digest = decode($3, 'hex')
"""

BURY_ONE = """
INSERT INTO stepmemo.entries AS e (namespace, cache, digest, data_key, text, bytes, created)
VALUES ($1, $2, decode($3, 'hex'), $4, NULL, 0, $5)
ON CONFLICT (namespace, cache, digest) DO UPDATE SET
    text = NULL, bytes = 0, created = greatest(e.created, excluded.created), expires = NULL,
    written = now(), revision = excluded.revision, last_hit = NULL
"""

# --- To keep within bounds --------------------------------------------------------------------------------

EXPIRED = """
SELECT namespace, cache, encode(digest, 'hex') AS digest, data_key, bytes, revision FROM stepmemo.entries
WHERE expires <= now() ORDER BY expires LIMIT $1
"""

NAMESPACES = f"""
SELECT namespace, sum(bytes + {OVERHEAD} * entries)::bigint AS bytes FROM stepmemo.usage GROUP BY namespace
"""

LEAST_USED = """
WITH chosen AS (
    -- Some caches of the Namespace, the larger the likelier (Efraimidis and Spirakis) …
    SELECT cache FROM stepmemo.usage WHERE namespace = $1 AND entries > 0
    ORDER BY -ln(1 - random()) / (bytes + 1) LIMIT 16
), sample AS (
    -- … of each some neighbours from anywhere on, and around the end …
    SELECT s.* FROM chosen CROSS JOIN LATERAL (
        (SELECT e.namespace, e.cache, e.digest, e.data_key, e.bytes, e.revision, e.written, e.last_hit
         FROM stepmemo.entries AS e
         WHERE e.namespace = $1 AND e.cache = chosen.cache AND e.digest >= decode($2, 'hex')
           AND e.text IS NOT NULL
         ORDER BY e.digest LIMIT 64)
        UNION ALL
        (SELECT e.namespace, e.cache, e.digest, e.data_key, e.bytes, e.revision, e.written, e.last_hit
         FROM stepmemo.entries AS e
         WHERE e.namespace = $1 AND e.cache = chosen.cache AND e.digest < decode($2, 'hex')
           AND e.text IS NOT NULL
         ORDER BY e.digest LIMIT 64)
        LIMIT 64
    ) AS s
)
-- … and of these the fifth that was of use longest ago; never what a hit or a waiter may be about to use.
SELECT namespace, cache, encode(digest, 'hex') AS digest, data_key, bytes, revision FROM sample
WHERE greatest(written, last_hit) < now() - make_interval(secs => $3)
ORDER BY greatest(written, last_hit) LIMIT (SELECT 1 + count(*) / 5 FROM sample)
"""

GONE = """
SELECT namespace, cache, encode(digest, 'hex') AS digest, data_key, bytes, revision FROM stepmemo.entries
WHERE text IS NULL AND written < now() - make_interval(secs => $1) ORDER BY written LIMIT $2
"""

_SEEN = """unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS k (namespace, cache, digest, revision)
WHERE e.namespace = k.namespace AND e.cache = k.cache AND e.digest = decode(k.digest, 'hex')
  AND e.revision = k.revision::bigint
RETURNING 1
"""

REMOVE_SEEN = f"DELETE FROM stepmemo.entries AS e USING {_SEEN}"
"""Those that are still what was seen."""

BURY_SEEN = f"""
UPDATE stepmemo.entries AS e SET
    text = NULL, bytes = 0, expires = NULL, written = now(), last_hit = NULL,
    revision = nextval('stepmemo.revisions')
FROM {_SEEN}"""
"""The same, where a ConfigMap may hold an entry too."""
