<?php
// Signs requests to Channelstream and makes the main calls, with nothing but what PHP 7.4 and later has built in.

$url = getenv('CHANNELSTREAM_URL') ?: 'http://127.0.0.1:8000';
$secret = getenv('CHANNELSTREAM_SECRET') ?: 'secret';

function base64url(string $raw): string
{
    return rtrim(strtr(base64_encode($raw), '+/', '-_'), '=');
}

/** Makes the text that proves who asks. It is good for 60 seconds: make one for each request. */
function sign(string $secret): string
{
    $timestamp = ltrim(pack('J', time()), "\0"); // big endian, leading zero bytes are left out
    $signed = 'channelstream.' . base64url($timestamp);
    $key = sha1('itsdangerous.Signer' . 'signer' . $secret, true);
    return $signed . '.' . base64url(hash_hmac('sha1', $signed, $key, true));
}

/** Sends a signed request, prints the answer and gives it back; ends the program at anything but a 200. */
function ask(string $method, string $path, array $body): array
{
    global $url, $secret;
    $stream = fopen($url . $path, 'r', false, stream_context_create(['http' => [
        'method' => $method,
        'header' => ['Content-Type: application/json', 'x-channelstream-secret: ' . sign($secret)],
        'content' => json_encode($body),
        'timeout' => 10,
        'ignore_errors' => true, // an error has a body, too
    ]]));
    if ($stream === false) {
        exit(1); // fopen said why
    }
    $status = explode(' ', stream_get_meta_data($stream)['wrapper_data'][0])[1];
    $text = stream_get_contents($stream);
    if ($status !== '200') {
        fwrite(STDERR, "$method $path: $status $text\n");
        exit(1);
    }
    echo $text, "\n";
    return json_decode($text, true);
}

// Let Ann in. Her browser is given conn_id, and listens with it.
$connected = ask('POST', '/connect', [
    'username' => 'ann', 'channels' => ['orders'], 'channel_configs' => ['orders' => ['store_history' => true]],
]);
ask('POST', '/subscribe', ['conn_id' => $connected['conn_id'], 'channels' => ['news']]);
ask('POST', '/user_state', [
    'user' => 'ann', 'user_state' => ['language' => 'en'], 'state_public_keys' => ['language'],
]);

// Uuids of our own: a post whose answer got lost may be repeated, and is not stored twice.
$packed = bin2hex(random_bytes(16));
$mistake = bin2hex(random_bytes(16));
ask('POST', '/message', [
    ['channel' => 'orders', 'user' => 'shop', 'uuid' => $packed, 'message' => ['text' => 'Your order is packed']],
    ['channel' => 'orders', 'user' => 'shop', 'uuid' => $mistake, 'message' => ['text' => 'Your order is lost']],
]);
ask('PATCH', '/message', [
    ['channel' => 'orders', 'uuid' => $packed, 'message' => ['text' => 'Your order is on its way 📦']],
]);
ask('DELETE', '/message', [['channel' => 'orders', 'uuid' => $mistake]]);

ask('POST', '/info', ['info' => ['channels' => ['orders']]]);
ask('POST', '/history', ['channel' => 'orders', 'limit' => 10]);
