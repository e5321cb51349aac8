package redis

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/hearthws/hearth/internal/resp"
)

// The history of a room is in these keys, which begin with Config.roomKeys:
//
//	log      a list of messages, the newest last: the time in milliseconds, ":", the length of the
//	         data, ":", and the message without its position
//	meta     a hash: "e" is the epoch, "o" the offset of the newest message, and "r" the run id of the
//	         server that numbered it
//	key:KEY  for a message with the key KEY: the epoch to which it was added
//
// A server that was restarted, or that was a replica before, may lack the newest messages. It would
// give their offsets to other messages, and no node could see that. So each script gets a run id of
// the server that it is sent to (readRunID), which is another one then, and starts another epoch if
// the log was numbered under another one.
//
// The first command that writes is one for which Redis checks its memory limit (OOM), and that
// fails for a key of another type, so such an error leaves nothing half done.

// openLog begins the scripts. KEYS are log and meta; ARGV[1] is the run id, ARGV[2] a new epoch.
const openLog = `
local meta = redis.call('HMGET', KEYS[2], 'r', 'e', 'o')
local epoch, offset = meta[2], tonumber(meta[3] or '')
local other = meta[1] and meta[1] ~= ARGV[1]
local fresh = not meta[1] or other or not epoch or not offset
if fresh then epoch, offset = ARGV[2], 0 end
local function save()
  redis.call('HSET', KEYS[2], 'r', ARGV[1], 'e', epoch, 'o', string.format('%.0f', offset))
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`

// appendScript adds a message to a log and publishes it with its position. It returns the offset, 0
// if the log has the key already. The offset is negative if the log was numbered by another server.
//
// The age of the oldest message is checked at every 16th message only: readers leave out those that
// are too old, and an idle log expires as a whole.
var appendScript = newScript(openLog + `
local size, age, metaAge, channel, length, message = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7], ARGV[8]
if KEYS[3] and not fresh and redis.call('GET', KEYS[3]) == epoch then return 0 end
offset = offset + 1
if fresh then
  save()
  redis.call('DEL', KEYS[1])
end
local n = redis.call('RPUSH', KEYS[1], string.format('%.0f', now) .. ':' .. length .. ':' .. message)
if not fresh then save() end
if n > size then redis.call('LTRIM', KEYS[1], -size, -1) end
if offset % 16 == 0 then
  for _ = 1, 64 do
    local oldest = redis.call('LINDEX', KEYS[1], 0)
    if now - (tonumber(string.match(oldest, '^%d+') or '') or 0) < age then break end
    redis.call('LPOP', KEYS[1])
  end
end
redis.call('PEXPIRE', KEYS[1], age)
redis.call('PEXPIRE', KEYS[2], metaAge)
if KEYS[3] then redis.call('SET', KEYS[3], epoch, 'PX', ARGV[9]) end
redis.call('PUBLISH', channel, string.sub(message, 1, -2) .. ',"offset":' .. string.format('%.0f', offset) .. ',"epoch":"' .. epoch .. '"}')
return other and -offset or offset
`)

// readScript returns the epoch, the offset, the reason why there are no messages, and messages, the
// newest first. It makes a log if there is none. If the log was numbered by another server, it
// starts another epoch only if ARGV[11] says that the run id was read just now. Otherwise its error
// is STALE.
var readScript = newScript(openLog + `
local age, metaAge, emptyAge, afterEpoch, after = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local limit, bytes, most = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
if other and ARGV[11] ~= '1' then return redis.error_reply('STALE run id') end
if fresh then
  save()
  redis.call('DEL', KEYS[1])
end
redis.call('PEXPIRE', KEYS[2], offset > 0 and metaAge or emptyAge)
local function result(reason) return {epoch, string.format('%.0f', offset), reason} end
local want = limit
if after then
  if afterEpoch ~= epoch or after > offset then return result('reset') end
  want = offset - after
  if want > limit then return result('limit') end
end
local n = want > 0 and redis.call('LLEN', KEYS[1]) or 0
if after and want > n then return result('evicted') end
want = math.min(want, n)
local found, data, total, chunk = result(''), 0, 0, 1
while want > 0 do
  local last = #found - 2
  local entries = redis.call('LRANGE', KEYS[1], -(last + math.min(chunk, want) - 1), -last)
  if #entries == 0 then break end
  for i = #entries, 1, -1 do
    local at, length = string.match(entries[i], '^(%d+):(%d+):')
    if not at then return redis.error_reply('MALFORMED entry in a log') end
    if now - tonumber(at) >= age then return after and result('evicted') or found end
    data, total = data + tonumber(length), total + #entries[i]
    if bytes > 0 and data > bytes or total > most then return after and result('limit') or found end
    found[#found + 1] = entries[i]
    want = want - 1
  end
  chunk = total < 262144 and math.min(chunk * 2, 64) or 1
end
return found
`)

// removeScript removes a log. It does not use the run id.
var removeScript = newScript(`return redis.call('DEL', KEYS[1], KEYS[2])`)

// A script is a Lua script with its name in Redis.
type script struct{ text, sha string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) // Redis names scripts by it
	return &script{text: text, sha: hex.EncodeToString(sum[:])}
}

// A scriptCall is a call of a script for one room. Its first argument is the run id of the server,
// which args does not have.
type scriptCall struct {
	script *script
	keys   []string
	args   []string
}

// command returns the command for a server. With text it contains the script, which Redis then
// knows; without, Redis may answer NOSCRIPT.
func (s scriptCall) command(runID string, text bool) []string {
	command := make([]string, 0, 4+len(s.keys)+len(s.args))
	if text {
		command = append(command, "EVAL", s.script.text)
	} else {
		command = append(command, "EVALSHA", s.script.sha)
	}
	command = append(command, strconv.Itoa(len(s.keys)))
	command = append(command, s.keys...)
	command = append(command, runID)
	return append(command, s.args...)
}

// scripts makes the commands of one pipeline. The first call of each script has its text, so that
// Redis knows it from then on: a script that Redis had forgotten would fail, and later messages of
// the pipeline would overtake its message.
type scripts struct {
	runID string
	known []*script
}

func (s *scripts) command(call scriptCall) []string {
	for _, known := range s.known {
		if known == call.script {
			return call.command(s.runID, false)
		}
	}
	s.known = append(s.known, call.script)
	return call.command(s.runID, true)
}

// isUnknownScript reports whether Redis forgot a script between two commands of a pipeline. The
// command did nothing.
func isUnknownScript(reply resp.Value) bool {
	err := reply.Err()
	return err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT")
}

// newEpoch returns a random name for a log.
func newEpoch() string { return rand.Text()[:13] } // 65 bits
