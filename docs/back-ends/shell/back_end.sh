#!/usr/bin/env bash
# Signs requests to Channelstream and makes the main calls, with openssl and curl (7.76 or later).
set -euo pipefail

url=${CHANNELSTREAM_URL:-http://127.0.0.1:8000}
secret=${CHANNELSTREAM_SECRET:-secret}

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
from_hex() { printf '%b' "$(sed 's/../\\x&/g')"; }

# Makes the text that proves who asks. It is good for 60 seconds: make one for each request. While openssl runs, whoever
# may list the processes of this machine sees the key, which is as good as the secret.
sign() {
  local signed key
  signed="channelstream.$(printf '%08x' "$(date +%s)" | from_hex | base64url)"
  key=$(printf '%s' "itsdangerous.Signersigner$secret" | openssl dgst -sha1 -r | cut -d ' ' -f 1)
  printf '%s.%s' "$signed" "$(printf '%s' "$signed" | openssl dgst -sha1 -mac HMAC -macopt "hexkey:$key" -binary | base64url)"
}

# Sends a signed request and prints the answer; ends the program at anything but a success.
ask() { # ask METHOD PATH BODY
  curl --silent --show-error --fail-with-body --max-time 10 --request "$1" --header "x-channelstream-secret: $(sign)" \
    --header 'Content-Type: application/json' --data-binary "$3" "$url$2"
  echo
}

# Let Ann in. Her browser is given conn_id, and listens with it. It may be chosen here: nobody can guess it.
conn_id=$(openssl rand -hex 16)
ask POST /connect '{"username": "ann", "channels": ["orders"], "channel_configs": {"orders": {"store_history": true}},
  "conn_id": "'"$conn_id"'"}'
ask POST /subscribe '{"conn_id": "'"$conn_id"'", "channels": ["news"]}'
ask POST /user_state '{"user": "ann", "user_state": {"language": "en"}, "state_public_keys": ["language"]}'

# Uuids of our own: a post whose answer got lost may be repeated, and is not stored twice.
packed=$(openssl rand -hex 16)
mistake=$(openssl rand -hex 16)
ask POST /message '[
  {"channel": "orders", "user": "shop", "uuid": "'"$packed"'", "message": {"text": "Your order is packed"}},
  {"channel": "orders", "user": "shop", "uuid": "'"$mistake"'", "message": {"text": "Your order is lost"}}]'
ask PATCH /message '[{"channel": "orders", "uuid": "'"$packed"'", "message": {"text": "Your order is on its way 📦"}}]'
ask DELETE /message '[{"channel": "orders", "uuid": "'"$mistake"'"}]'

ask POST /info '{"info": {"channels": ["orders"]}}'
ask POST /history '{"channel": "orders", "limit": 10}'
