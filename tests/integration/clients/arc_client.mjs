// The JavaScript client of the API reference. Usage: node arc_client.mjs URL TOKEN; prints what the query answered.
import { encode } from "@msgpack/msgpack";
import axios from "axios";

class ArcClient {
  constructor(baseURL, token) {
    this.client = axios.create({ baseURL, headers: { Authorization: `Bearer ${token}` } });
  }

  async write(measurement, fields, tags = {}) {
    const item = { m: measurement, t: Date.now(), h: tags.host || null, tags, fields };
    // axios sends the whole 2,048-byte buffer behind encode()'s view: the body ends in zero bytes.
    await this.client.post("/write/v2/msgpack", encode({ batch: [item] }), {
      headers: { "Content-Type": "application/msgpack" },
    });
  }

  async query(sql) {
    const response = await this.client.post("/query", { sql, format: "json" });
    return response.data;
  }
}

const client = new ArcClient(process.argv[2], process.argv[3]);
await client.write("js_client", { usage: 45.0, cores: 4 });
await client.write("js_client", { usage: 45.2, cores: 4 }, { host: "web-1", region: "eu" });
console.log(JSON.stringify(await client.query("SELECT time, host, region, usage, cores FROM js_client ORDER BY usage")));
