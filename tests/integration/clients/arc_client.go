// The Go client of the API reference. Usage: arc_client URL TOKEN; prints what the query answered.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

type Point struct {
	Measurement string                 `msgpack:"m"`
	Timestamp   int64                  `msgpack:"t"`
	Host        string                 `msgpack:"h,omitempty"`
	Tags        map[string]string      `msgpack:"tags,omitempty"`
	Fields      map[string]interface{} `msgpack:"fields"`
}

type ArcClient struct {
	BaseURL string
	Token   string
}

func (c *ArcClient) post(path, contentType string, body []byte) ([]byte, error) {
	request, err := http.NewRequest("POST", c.BaseURL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.Token)
	request.Header.Set("Content-Type", contentType)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s: %s", path, response.Status, answer)
	}
	return answer, err
}

func (c *ArcClient) Write(points ...Point) error {
	body, err := msgpack.Marshal(map[string]interface{}{"batch": points})
	if err != nil {
		return err
	}
	_, err = c.post("/write/v2/msgpack", "application/msgpack", body)
	return err
}

func (c *ArcClient) Query(sql string) ([]byte, error) {
	body, err := json.Marshal(map[string]string{"sql": sql, "format": "json"})
	if err != nil {
		return nil, err
	}
	return c.post("/query", "application/json", body)
}

func main() {
	client := &ArcClient{BaseURL: os.Args[1], Token: os.Args[2]}
	now := time.Now().UnixMilli()
	bare := Point{Measurement: "go_client", Timestamp: now, Fields: map[string]interface{}{"usage": 45.2, "cores": 4}}
	full := Point{Measurement: "go_client", Timestamp: now, Host: "web-1", Tags: map[string]string{"region": "eu"},
		Fields: map[string]interface{}{"usage": 46.5, "cores": 8}}
	if err := client.Write(bare, full); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	answer, err := client.Query("SELECT time, host, region, usage, cores FROM go_client ORDER BY usage")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(answer))
}
