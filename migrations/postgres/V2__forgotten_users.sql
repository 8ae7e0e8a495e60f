-- Names of users that were forgotten with their private messages, until somebody has that name again: a
-- listener with an older cursor has to be told of the gap.
CREATE TABLE forgotten_users (
    name    TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    trimmed BIGINT NOT NULL       -- highest inbox position that went, then or before
);
