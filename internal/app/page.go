package app

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed page
var pageFiles embed.FS

const assetPath = "/assets/"

// contentSecurityPolicy allows the page to load from this server only, and to connect only to it.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pageSettings are the settings that the page reads from its meta elements.
type pageSettings struct {
	Path    string // of the WebSocket endpoint
	MaxText int
	MaxName int
	MaxRoom int

	DefaultRooms string // as a JSON list
}

// A page serves the embedded files from memory. It is read-only.
type page struct {
	files map[string]pageFile // by URL path
}

type pageFile struct {
	body        []byte
	contentType string
	etag        string
}

func newPage(c Config) (*page, error) {
	rooms, err := json.Marshal(c.DefaultRooms)
	if err != nil {
		return nil, fmt.Errorf("encode the default rooms: %w", err)
	}
	settings := pageSettings{
		Path: c.Path, MaxText: maxText, MaxName: maxName, MaxRoom: maxRoomName, DefaultRooms: string(rooms),
	}

	p := &page{files: map[string]pageFile{}}
	entries, err := fs.ReadDir(pageFiles, "page")
	if err != nil {
		return nil, fmt.Errorf("read the page: %w", err)
	}
	for _, e := range entries {
		body, err := fs.ReadFile(pageFiles, path.Join("page", e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the page: %w", err)
		}
		url := assetPath + e.Name()
		if e.Name() == "index.html" {
			url = "/"
			if body, err = fillIn(body, settings); err != nil {
				return nil, err
			}
		}
		sum := sha256.Sum256(body)
		p.files[url] = pageFile{body: body, contentType: contentType(e.Name()), etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
	}
	return p, nil
}

func fillIn(index []byte, settings pageSettings) ([]byte, error) {
	t, err := template.New("index.html").Parse(string(index))
	if err != nil {
		return nil, fmt.Errorf("parse the page: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, settings); err != nil {
		return nil, fmt.Errorf("fill in the page: %w", err)
	}
	return b.Bytes(), nil
}

// contentType returns the media type by the extension. It does not use the tables of the system,
// which differ: browsers reject a module with a wrong type.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "application/octet-stream"
}

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := p.files[r.URL.Path]
	if !ok || strings.HasSuffix(r.URL.Path, "/index.html") {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("Content-Type", f.contentType)
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache") // revalidate: a new version of the server has a new page
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
}
