module github.com/hearthws/hearth/bench

go 1.26.0

replace github.com/hearthws/hearth => ../

require github.com/hearthws/hearth v0.0.0

require (
	github.com/google/uuid v1.6.0 // indirect
	github.com/klauspost/compress v1.20.4 // indirect
	golang.org/x/sys v0.50.0 // indirect
)
