# Signs requests to Channelstream and makes the main calls, with nothing but the standard library.

require "json"
require "net/http"
require "openssl"
require "securerandom"

URL = ENV.fetch("CHANNELSTREAM_URL", "http://127.0.0.1:8000")
SECRET = ENV.fetch("CHANNELSTREAM_SECRET", "secret")

def base64url(raw)
  [raw].pack("m0").tr("+/", "-_").delete("=")
end

# Makes the text that proves who asks. It is good for 60 seconds: make one for each request.
def sign(secret)
  timestamp = [Time.now.to_i].pack("Q>").sub(/\A\0+/n, "") # big endian, leading zero bytes are left out
  signed = "channelstream.#{base64url(timestamp)}"
  key = OpenSSL::Digest.digest("SHA1", "itsdangerous.Signer" + "signer" + secret)
  "#{signed}.#{base64url(OpenSSL::HMAC.digest("SHA1", key, signed))}"
end

# Sends a signed request, prints the answer and gives it back; ends the program at anything but a 200.
def ask(method, path, body)
  uri = URI(URL + path)
  request = Net::HTTP.const_get(method.capitalize).new(uri)
  request["Content-Type"] = "application/json"
  request["x-channelstream-secret"] = sign(SECRET)
  request.body = JSON.generate(body)
  options = { use_ssl: uri.scheme == "https", open_timeout: 10, read_timeout: 10 }
  response = Net::HTTP.start(uri.host, uri.port, **options) { |http| http.request(request) }
  abort "#{method} #{path}: #{response.code} #{response.body}" unless response.code == "200"
  answer = JSON.parse(response.body)
  puts JSON.generate(answer)
  answer
end

# Let Ann in. Her browser is given conn_id, and listens with it.
connected = ask("POST", "/connect", {
  username: "ann", channels: ["orders"], channel_configs: { orders: { store_history: true } }
})
ask("POST", "/subscribe", { conn_id: connected["conn_id"], channels: ["news"] })
ask("POST", "/user_state", { user: "ann", user_state: { language: "en" }, state_public_keys: ["language"] })

# Uuids of our own: a post whose answer got lost may be repeated, and is not stored twice.
packed = SecureRandom.uuid
mistake = SecureRandom.uuid
ask("POST", "/message", [
  { channel: "orders", user: "shop", uuid: packed, message: { text: "Your order is packed" } },
  { channel: "orders", user: "shop", uuid: mistake, message: { text: "Your order is lost" } }
])
ask("PATCH", "/message", [{ channel: "orders", uuid: packed, message: { text: "Your order is on its way 📦" } }])
ask("DELETE", "/message", [{ channel: "orders", uuid: mistake }])

ask("POST", "/info", { info: { channels: ["orders"] } })
ask("POST", "/history", { channel: "orders", limit: 10 })
