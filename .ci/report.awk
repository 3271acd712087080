# report.awk shortens the output of go test -v, and of vmrun -batch with -v test
# binaries, to one line per package; a package that failed is printed in full.
# At the end it lists what was skipped. Variables:
#   module=PATH    prefix of the packages' names in a batch
#   root=DIR       the folder of the module, for the same purpose
#   strict=1       a skipped test, or none at all, is a failure
#   live=1         print each test as it ends that failed or took a second

function flush_failed(    i) {
  for (i = 0; i < n; i++)
    if (buffer[i] !~ /^ *=== (RUN|PAUSE|CONT|NAME)/ && buffer[i] !~ /^ *--- PASS/ && buffer[i] != "PASS") print buffer[i]
}
function finish(line, failed,    note) {
  if (failed) { flush_failed(); bad++ }
  if (skips) note = sprintf("  (%d skipped)", skips)
  print line note
  n = skips = 0
  fflush()
}
function seconds(text) { sub(/^.* after /, "", text); sub(/ s$/, "", text); return text }

# What the compiler and vet say comes at any time, and belongs to no test.
/^# / { building = 1 }
/^(=== |--- |ok  \t|FAIL|\?   \t|PASS)/ { building = 0 }
building { print; fflush(); next }
/^=== RUN/ { ran++ }
/^ *--- SKIP: / {
  skips++; reason = previous
  sub(/^ *[^ ]*_test\.go:[0-9]+: |^ *[a-z_]+\.go:[0-9]+: /, "", reason)
  test = $3
  skipped[++total] = test "  " reason
}
live && /^--- (PASS|FAIL|SKIP): / && !/^--- PASS.*\(0\.[0-9]+s\)$/ { print "   " $0; fflush() }
/^=== vmrun / { n = skips = 0; next }
/^--- vmrun .*: exit code [0-9]+ after / {
  name = $3
  if (index(name, root) == 1) name = module substr(name, length(root) + 1)
  failed = $0 !~ /: exit code 0 after /
  finish((failed ? "FAIL" : "ok  ") "\t" name "\t" seconds($0) "s (vm)", failed)
  next
}
/^ok  \t/ { finish($0, 0); next }
/^\?   \t/ || /\tcoverage: .*\[no test files\]$/ { n = 0; next }
/^FAIL\t/ { finish($0, 1); next }
{ buffer[n++] = $0 }
/[^ ]/ && !/^ *=== / { previous = $0 }

END {
  flush_failed()
  printf "%d tests, %d skipped, %d packages failed\n", ran, total, bad
  for (i = 1; i <= total; i++) print "  skipped: " skipped[i]
  if (strict && total) { print "FAIL: a test was skipped where everything must run"; exit 1 }
  if (strict && !ran) { print "FAIL: no test ran"; exit 1 }
  exit bad > 0
}
