// A Socket.IO server for comparison: subscribe joins a room, publish emits to it. It keeps nothing and
// acknowledges what it has handed on.
import { createRequire } from "node:module";
import { createServer } from "node:http";

const require = createRequire(`${process.env.SOCKET_IO}/`);
const { Server } = require("socket.io");

const http = createServer((request, response) => {
  response.writeHead(request.url === "/ready" ? 200 : 404).end();
});
const io = new Server(http, { transports: ["websocket"], serveClient: false, perMessageDeflate: false });
io.on("connection", (socket) => {
  socket.on("subscribe", (channel, answer) => {
    socket.join(channel);
    answer();
  });
  socket.on("publish", (channel, ...rest) => {
    const answer = rest.pop();
    for (const data of rest) io.to(channel).emit("event", data);
    answer();
  });
});
http.listen(Number(process.argv[2]), "127.0.0.1");
