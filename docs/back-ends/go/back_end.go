// Signs requests to Channelstream and makes the main calls, with nothing but the standard library.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

var (
	url    = environment("CHANNELSTREAM_URL", "http://127.0.0.1:8000")
	secret = environment("CHANNELSTREAM_SECRET", "secret")
	client = http.Client{Timeout: 10 * time.Second}
)

func environment(name, otherwise string) string {
	if value, given := os.LookupEnv(name); given {
		return value
	}
	return otherwise
}

// sign makes the text that proves who asks. It is good for 60 seconds: make one for each request.
func sign(secret string) string {
	timestamp := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix()))
	timestamp = bytes.TrimLeft(timestamp, "\x00")
	signed := "channelstream." + base64.RawURLEncoding.EncodeToString(timestamp)
	key := sha1.Sum([]byte("itsdangerous.Signer" + "signer" + secret))
	mac := hmac.New(sha1.New, key[:])
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// ask sends a signed request, prints the answer and gives it back; it ends the program at anything but a 200.
func ask(method, path string, body any) []byte {
	content, err := json.Marshal(body)
	check(err)
	request, err := http.NewRequest(method, url+path, bytes.NewReader(content))
	check(err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("x-channelstream-secret", sign(secret))
	response, err := client.Do(request)
	check(err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	check(err)
	if response.StatusCode != http.StatusOK {
		log.Fatalf("%s %s: %d %s", method, path, response.StatusCode, answer)
	}
	fmt.Println(string(answer))
	return answer
}

func newUUID() string {
	raw := make([]byte, 16)
	_, err := rand.Read(raw)
	check(err)
	return hex.EncodeToString(raw)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

type object map[string]any

func main() {
	// Let Ann in. Her browser is given conn_id, and listens with it.
	var connected struct {
		ConnID string `json:"conn_id"`
	}
	check(json.Unmarshal(ask("POST", "/connect", object{
		"username": "ann", "channels": []string{"orders"},
		"channel_configs": object{"orders": object{"store_history": true}},
	}), &connected))
	ask("POST", "/subscribe", object{"conn_id": connected.ConnID, "channels": []string{"news"}})
	ask("POST", "/user_state", object{
		"user": "ann", "user_state": object{"language": "en"}, "state_public_keys": []string{"language"},
	})

	// Uuids of our own: a post whose answer got lost may be repeated, and is not stored twice.
	packed, mistake := newUUID(), newUUID()
	ask("POST", "/message", []object{
		{"channel": "orders", "user": "shop", "uuid": packed, "message": object{"text": "Your order is packed"}},
		{"channel": "orders", "user": "shop", "uuid": mistake, "message": object{"text": "Your order is lost"}},
	})
	ask("PATCH", "/message", []object{
		{"channel": "orders", "uuid": packed, "message": object{"text": "Your order is on its way 📦"}},
	})
	ask("DELETE", "/message", []object{{"channel": "orders", "uuid": mistake}})

	ask("POST", "/info", object{"info": object{"channels": []string{"orders"}}})
	ask("POST", "/history", object{"channel": "orders", "limit": 10})
}
