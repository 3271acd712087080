#!/bin/sh
# Answers with the network this server is in and the address it saw, and keeps
# the address in a list.
seen=${REMOTE_ADDR#::ffff:}
echo "$seen" >>/tmp/seen
printf 'Content-Type: text/plain\r\n\r\n%s saw %s\n' "$NETWORK" "$seen"
