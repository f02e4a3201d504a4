"""All SQL of the store: the schema with its migrations, and the statements.

Rows are found by namespace, cache and digest, where the digest is that of the memoize key (`rows.digest_of`).
So the rows of a cache lie in an order that has nothing to do with their keys, and any stretch of it is a fair
sample.

Whose clock: `created` is what the entry itself says, and is compared with `created` of others alone.
`written`, `last_hit`, and what is due by them or by `expires`, go by the database's `now()`. Whether an entry
is too old for a step is not asked here: the keeper asks, by its own clock, as it does of a ConfigMap's.
Whether a row is an earlier Namespace's of the same name is asked by `written` and the API server's clock.

Each statement is a transaction of its own, and may be run twice: the keeper may be killed between any two,
and PgBouncer may have each run elsewhere. Lists are arrays of text: asyncpg knows these without asking the
server.
"""

from typing import NamedTuple

LOCK = 7_340_283_116_904_455_801
"""The advisory lock of whoever migrates; a number made up, and nobody else's."""
OVERHEAD = 512
"""Bytes that an entry counts beside its text: its names, and its places in indexes."""

CREATE = """
-- Without `IF NOT EXISTS`, which asks for the right to make a schema even where there is one.
DO $$ BEGIN IF to_regnamespace('stepmemo') IS NULL THEN CREATE SCHEMA stepmemo; END IF; END $$;
CREATE TABLE IF NOT EXISTS stepmemo.schema (version integer NOT NULL, compatible integer NOT NULL);
"""
VERSION = """
SELECT coalesce(max(version), 0) AS version, coalesce(max(compatible), 0) AS compatible FROM stepmemo.schema
"""
"""The schema's version, and the least one that a program must know to work with it."""
CHECK = "SELECT FROM stepmemo.entries, stepmemo.usage LIMIT 0"
"""Fails where the tables are not there, whatever the version says."""
MIGRATED = "INSERT INTO stepmemo.schema (version, compatible) VALUES ($1, $2)"


class Migration(NamedTuple):
    """What takes the schema from one version to the next."""

    compatible: int
    """The least version that a program must know to work with what this leaves."""
    statements: str


MIGRATIONS = (
    Migration(
        1,
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
        -- The name of the template that made it, for people; NULL where the entry does not say, as those do
        -- whose keys their authors wrote.
        template text COLLATE "C",
        written timestamptz NOT NULL DEFAULT now(),
        revision bigint NOT NULL DEFAULT nextval('stepmemo.revisions'),
        last_hit timestamptz,
        PRIMARY KEY (namespace, cache, digest)
    -- With room in each page, and no index on it, a new `last_hit` touches no index (a HOT update).
    ) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);

    -- By Namespace, so that each has its own time; and in an order in which every row has a place.
    CREATE INDEX entries_expires ON stepmemo.entries (namespace, expires, digest) WHERE expires IS NOT NULL;
    CREATE INDEX entries_template ON stepmemo.entries (namespace, cache, template, created)
    WHERE template IS NOT NULL AND text IS NOT NULL;
    CREATE INDEX entries_gone ON stepmemo.entries (namespace, written, digest) WHERE text IS NULL;

    -- What each cache comes to. Kept by triggers, in the transaction that changes it, so that nobody has to
    -- count; in one order and after the entries, so that no two wait for each other.
    CREATE TABLE stepmemo.usage (
        namespace text COLLATE "C" NOT NULL,
        cache text COLLATE "C" NOT NULL,
        entries bigint NOT NULL,
        -- Rows whose entry is gone.
        gone bigint NOT NULL,
        bytes bigint NOT NULL,
        PRIMARY KEY (namespace, cache)
    ) WITH (fillfactor = 50);

    CREATE FUNCTION stepmemo.count_inserted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO stepmemo.usage AS u (namespace, cache, entries, gone, bytes)
        SELECT namespace, cache, count(text), count(*) - count(text), sum(bytes) FROM inserted
        GROUP BY namespace, cache ORDER BY namespace, cache
        ON CONFLICT (namespace, cache) DO UPDATE SET
            entries = u.entries + excluded.entries, gone = u.gone + excluded.gone,
            bytes = u.bytes + excluded.bytes;
        RETURN NULL;
    END $$;

    CREATE FUNCTION stepmemo.count_updated() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO stepmemo.usage AS u (namespace, cache, entries, gone, bytes)
        SELECT namespace, cache, sum(entries), sum(gone), sum(bytes) FROM (
            SELECT namespace, cache, (text IS NOT NULL)::integer AS entries, (text IS NULL)::integer AS gone,
                   bytes
            FROM after
            UNION ALL
            SELECT namespace, cache, -(text IS NOT NULL)::integer, -(text IS NULL)::integer, -bytes
            FROM before
        ) AS changes
        GROUP BY namespace, cache HAVING sum(entries) <> 0 OR sum(gone) <> 0 OR sum(bytes) <> 0
        ORDER BY namespace, cache
        ON CONFLICT (namespace, cache) DO UPDATE SET
            entries = u.entries + excluded.entries, gone = u.gone + excluded.gone,
            bytes = u.bytes + excluded.bytes;
        RETURN NULL;
    END $$;

    CREATE FUNCTION stepmemo.count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO stepmemo.usage AS u (namespace, cache, entries, gone, bytes)
        SELECT namespace, cache, -count(text), count(text) - count(*), -sum(bytes) FROM deleted
        GROUP BY namespace, cache ORDER BY namespace, cache
        ON CONFLICT (namespace, cache) DO UPDATE SET
            entries = u.entries + excluded.entries, gone = u.gone + excluded.gone,
            bytes = u.bytes + excluded.bytes;
        DELETE FROM stepmemo.usage AS u USING (SELECT DISTINCT namespace, cache FROM deleted) AS d
        WHERE u.namespace = d.namespace AND u.cache = d.cache AND u.entries = 0 AND u.gone = 0;
        RETURN NULL;
    END $$;

    CREATE FUNCTION stepmemo.count_truncated() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        DELETE FROM stepmemo.usage;
        RETURN NULL;
    END $$;

    CREATE TRIGGER count_inserted AFTER INSERT ON stepmemo.entries REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION stepmemo.count_inserted();
    CREATE TRIGGER count_updated AFTER UPDATE ON stepmemo.entries
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION stepmemo.count_updated();
    CREATE TRIGGER count_deleted AFTER DELETE ON stepmemo.entries REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION stepmemo.count_deleted();
    CREATE TRIGGER count_truncated AFTER TRUNCATE ON stepmemo.entries
    FOR EACH STATEMENT EXECUTE FUNCTION stepmemo.count_truncated();
    """,
    ),
)
"""What takes the schema from each version to the next, of which the first is 1.

During an upgrade keepers of both releases run, and after one that is taken back the older alone. So a
migration leaves what the statements of the release before need, and says so by `compatible`; those that do
not know as much stop using the database, and let steps run. None takes long: steps run meanwhile.
"""

# --- For steps --------------------------------------------------------------------------------------------

AHEAD = "1 minute"
"""How far a clock may be ahead of the database's; an entry from later on was made by a wrong one."""

READ = f"""
SELECT text, created, revision, coalesce(expires <= now(), false) AS expired,
       now() + interval '{AHEAD}' AS soon, written
FROM stepmemo.entries
WHERE namespace = $1 AND cache = $2 AND digest = decode($3, 'hex')
"""

PUT = f"""
WITH before AS (
    SELECT bytes FROM stepmemo.entries
    WHERE namespace = $1 AND cache = $2 AND digest = decode($3, 'hex') AND text IS NOT NULL
)
INSERT INTO stepmemo.entries AS e
    (namespace, cache, digest, data_key, text, bytes, created, expires, last_hit, template)
VALUES ($1, $2, decode($3, 'hex'), $4, $5, $6, $7, $8,
        CASE WHEN $9::timestamptz <= now() THEN $9::timestamptz END, $10)
ON CONFLICT (namespace, cache, digest) DO UPDATE SET
    data_key = excluded.data_key, text = excluded.text, bytes = excluded.bytes, created = excluded.created,
    expires = excluded.expires, written = now(), revision = excluded.revision, last_hit = excluded.last_hit,
    template = excluded.template
-- The newer one stays, whoever comes last: a keeper that lost its Lease may be late. So what is gone does not
-- come back by being told twice. One from the future was made by a wrong clock, and keeps nobody out.
WHERE excluded.created > e.created OR (excluded.created = e.created AND e.text IS NOT NULL)
   OR e.created > now() + interval '{AHEAD}'
RETURNING revision, (SELECT bytes FROM before) AS replaced
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
SELECT encode(e.digest, 'hex') AS digest, data_key, bytes, created, last_hit, expires, template
FROM stepmemo.entries AS e
WHERE namespace = $1 AND cache = $2 AND e.digest > decode($3, 'hex') AND text IS NOT NULL
  AND written >= $5
-- `digest` alone would be the column of the result, which no index has in order.
ORDER BY e.digest LIMIT $4
"""

CACHES = """
SELECT namespace, cache, entries, bytes FROM stepmemo.usage AS u
WHERE ($1 = '' OR namespace = $1) AND (namespace, cache) > ($2, $3) AND entries > 0
  AND ($5::timestamptz IS NULL OR EXISTS (
    SELECT FROM stepmemo.entries AS e
    WHERE e.namespace = u.namespace AND e.cache = u.cache AND e.text IS NOT NULL AND e.written >= $5
  ))
ORDER BY namespace, cache LIMIT $4
"""
"""With an entry that was written since, as a rule the first that is looked at; NULL: none is looked at."""

EARLIER = """
SELECT data_key, text FROM stepmemo.entries AS e
WHERE namespace = $1 AND cache = $2 AND template = $3 AND text IS NOT NULL AND data_key <> $4
  AND created > to_timestamp(0) AND ($5::timestamptz IS NULL OR created <= $5) AND written >= $6
ORDER BY created DESC LIMIT 1
"""

DELETE = """
DELETE FROM stepmemo.entries WHERE namespace = $1 AND cache = $2 AND digest = decode($3, 'hex')
"""

_BURY = """
INSERT INTO stepmemo.entries AS e (namespace, cache, digest, data_key, text, bytes, created)
VALUES ($1, $2, decode($3, 'hex'), $4, NULL, 0, $5)
ON CONFLICT (namespace, cache, digest) DO UPDATE SET
    text = NULL, bytes = 0, created = greatest(e.created, excluded.created), expires = NULL,
    written = now(), revision = excluded.revision, last_hit = NULL
"""
BURY_ONE = _BURY
BURY_UNCHANGED = f"{_BURY}WHERE e.revision = $6 RETURNING 1"
"""The same, if the row is still what was seen; 0 where none was."""

# --- To keep within bounds --------------------------------------------------------------------------------

NAMESPACES = f"""
SELECT namespace, sum(bytes + {OVERHEAD} * (entries + gone))::bigint AS bytes FROM stepmemo.usage
GROUP BY namespace
"""

DUE = """
SELECT n.namespace, expired.due AS expired, gone.due AS gone, n.seconds
FROM (
    SELECT namespace, CASE WHEN sum(gone) > $1::bigint THEN $2::float8 ELSE $3::float8 END AS seconds
    FROM stepmemo.usage GROUP BY namespace
) AS n
-- With a limit, so that each is one look into its index.
LEFT JOIN LATERAL (
    SELECT true AS due FROM stepmemo.entries AS e WHERE e.namespace = n.namespace AND e.expires <= now()
    ORDER BY e.expires LIMIT 1
) AS expired ON true
LEFT JOIN LATERAL (
    SELECT true AS due FROM stepmemo.entries AS e
    WHERE e.namespace = n.namespace AND e.text IS NULL
      AND e.written < now() - make_interval(secs => n.seconds)
    ORDER BY e.written LIMIT 1
) AS gone ON true
WHERE expired.due OR gone.due
"""

_FOUND = "cache, encode(digest, 'hex') AS digest, data_key, bytes, revision"

EXPIRED = f"""
SELECT {_FOUND}, expires AS since FROM stepmemo.entries AS e
WHERE namespace = $1 AND expires <= now() AND (e.expires, e.digest) > ($2, decode($3, 'hex'))
ORDER BY e.expires, e.digest LIMIT $4
"""
"""From behind a row that was found before: so what is left where it is keeps nothing else from its turn."""

GONE = f"""
SELECT {_FOUND}, written AS since FROM stepmemo.entries AS e
WHERE namespace = $1 AND text IS NULL AND (e.written, e.digest) > ($2, decode($3, 'hex'))
  AND written < now() - make_interval(secs => $5)
ORDER BY e.written, e.digest LIMIT $4
"""
"""The same for marks that were last looked at so many seconds ago."""

LEAST_USED = f"""
WITH chosen AS (
    -- Some caches of the Namespace, the larger the likelier (Efraimidis and Spirakis) …
    SELECT cache FROM stepmemo.usage WHERE namespace = $1 AND entries > 0
    ORDER BY -ln(1 - random()) / (bytes + 1) LIMIT 16
), sample AS (
    -- … of each some neighbours from anywhere on, and around the end, however many of them are gone …
    SELECT s.* FROM chosen CROSS JOIN LATERAL (
        SELECT * FROM (
            (SELECT e.cache, e.digest, e.data_key, e.bytes, e.revision, e.written, e.last_hit,
                    e.text IS NOT NULL AS is_there
             FROM stepmemo.entries AS e
             WHERE e.namespace = $1 AND e.cache = chosen.cache AND e.digest >= decode($2, 'hex')
             ORDER BY e.digest LIMIT 512)
            UNION ALL
            (SELECT e.cache, e.digest, e.data_key, e.bytes, e.revision, e.written, e.last_hit,
                    e.text IS NOT NULL
             FROM stepmemo.entries AS e
             WHERE e.namespace = $1 AND e.cache = chosen.cache AND e.digest < decode($2, 'hex')
             ORDER BY e.digest LIMIT 512)
        ) AS stretch WHERE is_there LIMIT 64
    ) AS s
)
-- … and of these a fifth is to go, that of use longest ago first; never what a hit or a waiter may be about
-- to use.
SELECT {_FOUND}, (SELECT 1 + count(*) / 5 FROM sample) AS most FROM sample
WHERE greatest(written, last_hit) < now() - make_interval(secs => $3) ORDER BY greatest(written, last_hit)
"""

ENTRIES_OF = """
SELECT coalesce(sum(entries), 0)::bigint AS entries FROM stepmemo.usage WHERE namespace = $1 AND cache = $2
"""

UNUSED = f"""
WITH stretch AS (
    SELECT {_FOUND},
           text IS NOT NULL AND greatest(written, last_hit) < now() - make_interval(secs => $6) AS unused
    FROM stepmemo.entries AS e
    WHERE namespace = $1 AND cache = $2 AND e.digest > decode($3, 'hex') AND e.digest <= decode($4, 'hex')
    ORDER BY e.digest LIMIT $5
), seen AS (
    SELECT count(*) AS looked_at, max(digest) AS last FROM stretch
)
SELECT stretch.*, looked_at, last FROM seen LEFT JOIN stretch ON unused ORDER BY stretch.digest
"""
"""Of so many rows behind a digest, and not behind another one, those that were of use so long ago.

At least one row, which is empty where none was: each says how many there are, and the last one's digest."""

_SEEN = """unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS k (namespace, cache, digest, revision)
WHERE e.namespace = k.namespace AND e.cache = k.cache AND e.digest = decode(k.digest, 'hex')
  AND e.revision = k.revision::bigint
RETURNING k.revision
"""

REMOVE_SEEN = f"DELETE FROM stepmemo.entries AS e USING {_SEEN}"
"""Those that are still what was seen."""

BURY_SEEN = f"""
UPDATE stepmemo.entries AS e SET
    text = NULL, bytes = 0, expires = NULL, written = now(), last_hit = NULL,
    revision = nextval('stepmemo.revisions')
FROM {_SEEN}"""
"""The same, where a ConfigMap may hold an entry too."""
