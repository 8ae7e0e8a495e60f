-- The whole layout. Times are microseconds since 1970 (UTC) unless they are JSON or ISO text;
-- positions number logged events over the whole server; uuids are 16 bytes.

CREATE TABLE meta (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    head       INTEGER NOT NULL,   -- position of the newest logged event
    last_batch BLOB    NOT NULL,   -- id of the batch committed last: settles an unclear commit
    clean      INTEGER NOT NULL    -- 1 after an orderly stop; 0 in use, 2 in use without full sync
) STRICT;

CREATE TABLE epochs (
    number INTEGER PRIMARY KEY,    -- in the order in which they began
    id     TEXT    NOT NULL UNIQUE,
    after  INTEGER NOT NULL        -- the head when it began
) STRICT;

CREATE TABLE channels (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,  -- in order of creation
    name            TEXT    NOT NULL UNIQUE,
    uuid            BLOB    NOT NULL,
    notify_presence INTEGER NOT NULL,
    store_history   INTEGER NOT NULL,
    history_size    INTEGER NOT NULL,
    broadcast_presence_with_user_lists INTEGER NOT NULL,
    notify_state    INTEGER NOT NULL,
    store_frames    INTEGER NOT NULL,
    replay_size     INTEGER NOT NULL,
    history_ttl     INTEGER,                            -- seconds
    last_active     INTEGER NOT NULL,                   -- or the newest log entry's commit time, if later
    trimmed         INTEGER NOT NULL DEFAULT 0,         -- highest position that retention dropped
    deleted         INTEGER                             -- head when it was deleted; the row stays for its name and position
) STRICT;

CREATE INDEX channels_that_expire ON channels (id) WHERE history_ttl IS NOT NULL;

CREATE TABLE users (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT    NOT NULL UNIQUE,
    uuid        BLOB    NOT NULL,
    state       TEXT    NOT NULL,           -- JSON object, as set
    public_keys TEXT    NOT NULL,           -- JSON list
    created     INTEGER NOT NULL,           -- head when it was created: the floor of its inbox
    last_active INTEGER NOT NULL,
    trimmed     INTEGER NOT NULL DEFAULT 0  -- highest inbox position that retention dropped
) STRICT;
CREATE INDEX users_by_activity ON users (last_active);

CREATE TABLE log (
    position  INTEGER PRIMARY KEY,
    channel   INTEGER,             -- none: private, see inbox
    kind      INTEGER NOT NULL,    -- 0 message, 1 edit, 2 deletion
    uuid      BLOB    NOT NULL,    -- of the message it is or is about
    about     INTEGER,             -- edit, deletion: position of the message
    edit      INTEGER,             -- message: position of its latest edit
    sender    TEXT,
    timestamp TEXT,
    edited    TEXT,
    audience  TEXT,                -- JSON {"pm_users": [], "exclude_users": []}; none: everyone
    body      TEXT,                -- JSON object as it came; an edit or deletion has none
    committed INTEGER NOT NULL     -- never decreasing
) STRICT;
CREATE INDEX log_by_channel ON log (channel, position, kind) WHERE channel IS NOT NULL;
CREATE INDEX log_by_uuid ON log (uuid);

CREATE TABLE inbox (
    user     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (user, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX inbox_by_position ON inbox (position);

CREATE TABLE connections (
    id     BLOB    NOT NULL PRIMARY KEY,
    user   INTEGER NOT NULL,
    opened INTEGER NOT NULL,       -- when
    head   INTEGER NOT NULL        -- the log's head then
) STRICT, WITHOUT ROWID;
CREATE INDEX connections_by_user ON connections (user);

CREATE TABLE subscriptions (
    connection BLOB    NOT NULL,
    channel    INTEGER NOT NULL,
    PRIMARY KEY (connection, channel)
) STRICT, WITHOUT ROWID;

CREATE TABLE memberships (
    user    INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    floor   INTEGER NOT NULL,      -- how far back this user may replay this channel
    "left"  INTEGER,               -- when the user's last connection left; none: it is there
    PRIMARY KEY (user, channel)
) STRICT, WITHOUT ROWID;
CREATE INDEX memberships_by_leaving ON memberships ("left") WHERE "left" IS NOT NULL;
