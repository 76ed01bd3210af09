#!/bin/sh
# The certificates that the suite expects beside its package, where its repository has them.
set -eu
mkdir -p test/client_certs run
cd test/client_certs
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=root -keyout rootca.key -out rootca.crt
for name in client server; do
  openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" -keyout $name.key -out $name.csr
  printf 'subjectAltName=DNS:consul.test,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >$name.ext
  openssl x509 -req -in $name.csr -CA rootca.crt -CAkey rootca.key -CAcreateserial -days 3650 -extfile $name.ext -out $name.crt
done
